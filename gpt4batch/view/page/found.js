// The places of a conversation that hold the text that is looked for: marked, and gone through.

const MOST = 2000;

// Marks are ranges beside the elements, not elements: nothing of an answer is rewritten for them.
export class Found {
  constructor() {
    this.ranges = [];
    this.place = -1;
  }

  // The text as the server looks for it: in any case, and within one piece of text.
  mark(element, text) {
    this.clear();
    const wanted = text.trim().toLowerCase();
    if (!wanted || !window.CSS?.highlights) return;
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && this.ranges.length < MOST) this.markIn(walker.currentNode, wanted);
    CSS.highlights.set("found", new Highlight(...this.ranges));
  }

  markIn(node, wanted) {
    const text = node.data.toLowerCase();
    // A few characters change their length with their case: then places would be wrong.
    if (text.length !== node.data.length) return;
    for (let at = text.indexOf(wanted); at >= 0 && this.ranges.length < MOST; at = text.indexOf(wanted, at + wanted.length)) {
      const range = new Range();
      range.setStart(node, at);
      range.setEnd(node, at + wanted.length);
      this.ranges.push(range);
    }
  }

  clear() {
    this.ranges = [];
    this.place = -1;
    window.CSS?.highlights?.clear();
  }

  get count() {
    return this.ranges.length;
  }

  // Go to the next place, or back; return which one it is, from 1.
  go(by) {
    if (!this.count) return 0;
    this.place = (this.place + by + this.count) % this.count;
    const range = this.ranges[this.place];
    for (let parent = range.startContainer.parentElement; parent; parent = parent.parentElement) {
      if (parent instanceof HTMLDetailsElement) parent.open = true;
    }
    CSS.highlights.set("found-now", new Highlight(range));
    range.startContainer.parentElement.scrollIntoView({ block: "nearest" });
    const frame = range.startContainer.parentElement.closest(".detail");
    if (frame) frame.scrollTop += range.getBoundingClientRect().top - frame.getBoundingClientRect().top - frame.clientHeight / 2;
    return this.place + 1;
  }
}
