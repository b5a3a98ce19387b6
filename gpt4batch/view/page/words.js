// What the page says, in English and Chinese, and how it writes numbers and times.

const WORDS = {
  overview: ["Overview", "概览"],
  lines: ["Lines", "行"],
  pictures: ["Pictures", "图片"],
  compare: ["Compare", "对比"],
  views: ["Views", "视图"],
  output: ["Output", "输出文件"],
  done: ["Done", "已完成"],
  failed: ["Failed", "失败"],
  not_run: ["Not run", "未运行"],
  partly: ["Partly answered", "部分已回答"],
  all: ["All", "全部"],
  theme: ["Theme: {theme}", "主题：{theme}"],
  theme_auto: ["as the system", "跟随系统"],
  theme_light: ["light", "浅色"],
  theme_dark: ["dark", "深色"],
  switch_language: ["中文", "English"],
  switch_language_hint: ["Switch to Chinese", "切换到英文"],
  help: ["Keyboard help", "键盘帮助"],
  close: ["Close", "关闭"],
  back_to_list: ["Back to the list", "返回列表"],
  previous: ["Previous line", "上一行"],
  next: ["Next line", "下一行"],
  previous_page: ["Previous page", "上一页"],
  next_page: ["Next page", "下一页"],
  previous_picture: ["Previous picture", "上一张"],
  next_picture: ["Next picture", "下一张"],
  search: ["Search ids, asks, answers, errors", "搜索编号、提问、回答、错误"],
  search_help: ["Also: seconds>30 attempts>=2 length<100 tokens>1000 extra.KEY=VALUE before the text, /a regular expression/", "还可在文字前写条件：seconds>30 attempts>=2 length<100 tokens>1000 extra.键=值；/正则表达式/"],
  any_cause: ["Any cause", "全部原因"],
  cause: ["Cause of failure", "失败原因"],
  with_pictures: ["With pictures", "含图片"],
  filters: ["Filters", "筛选"],
  clear_filters: ["Clear filters", "清除筛选"],
  one_line: ["1 line", "1 行"],
  many_lines: ["{n} lines", "{n} 行"],
  count_all: ["{total} lines", "共 {total} 行"],
  count_one: ["1 line", "共 1 行"],
  count_some: ["{total} of {of} lines", "{of} 行中的 {total} 行"],
  searching: ["{total} found, searched {percent}", "已找到 {total} 行，已搜索 {percent}"],
  no_lines: ["No lines match.", "没有符合筛选条件的行。"],
  no_lines_yet: ["No lines yet. They appear here the moment they are answered.", "尚无内容。每行一有回答就会显示在这里。"],
  choose_line: ["Choose a line to read its conversation.", "选择一行以查看对话。"],
  choose_line_keys: ["Arrow keys move, Enter opens, / searches, ? shows all keys.", "方向键移动，回车打开，/ 搜索，? 显示全部按键。"],
  save_failed: ["Failed lines as JSONL", "失败的行（JSONL）"],
  save_csv: ["Results as CSV", "结果（CSV）"],
  save_lines: ["These lines as JSONL", "这些行（JSONL）"],
  save_these_csv: ["These as CSV", "这些行（CSV）"],
  save_file: ["Save", "保存"],
  ask: ["Ask", "提问"],
  answer: ["Answer", "回答"],
  turn: ["Ask {n} of {of}", "第 {n}/{of} 问"],
  no_answer: ["No answer yet.", "尚无回答。"],
  no_answer_failed: ["No answer: the line failed here.", "无回答：该行在此失败。"],
  not_asked: ["Not asked yet. To go on, run the batch again with -f.", "尚未提问。用 -f 再次运行即可继续。"],
  not_asked_failed: ["Not asked: the line failed before.", "未提问：该行在此之前已失败。"],
  empty_answer: ["The reply holds no text.", "回答中没有文字。"],
  tool_call: ["Called {name}", "调用 {name}"],
  tool_result: ["Output of {name}", "{name} 的结果"],
  tool: ["tool", "工具"],
  system: ["What was said before (system)", "系统提示（system）"],
  kept_reply: ["The reply, which is no answer", "收到的回复（不算回答）"],
  reasoning: ["Reasoning", "推理过程"],
  refused: ["The model refused to answer:", "模型拒绝回答："],
  ended_by: ["ended by {finish}", "结束原因 {finish}"],
  finish: ["End of the answer", "结束原因"],
  any_finish: ["Any end", "全部结束原因"],
  tokens: ["Tokens", "token 用量"],
  cost: ["Cost", "费用"],
  cost_each: ["{cost} a line", "每行 {cost}"],
  cost_one: ["cost {cost}", "费用 {cost}"],
  tokens_one: ["{in} + {out} tokens", "{in} + {out} token"],
  tokens_all: ["{in} in ({cached} cached) · {out} out ({reasoning} reasoning)", "输入 {in}（缓存 {cached}）· 输出 {out}（推理 {reasoning}）"],
  downloads: ["Downloads", "下载的文件"],
  attachments: ["Attachments", "附件"],
  missing: ["not found in the folder", "文件夹中未找到"],
  address: ["an address, not loaded", "网址，未加载"],
  download_failed: ["could not be downloaded: {error}", "下载失败：{error}"],
  attempts: ["{n} attempts", "{n} 次尝试"],
  raw: ["Raw JSON", "原始 JSON"],
  conversation: ["Conversation", "对话"],
  copy: ["Copy", "复制"],
  copied: ["Copied", "已复制"],
  not_copied: ["Select it and copy by hand", "请选中后手动复制"],
  more: ["Extra, meta and other keys", "extra、meta 及其他字段"],
  cut: ["Shown: the first {shown} of {length} characters.", "仅显示前 {shown} 个字符，共 {length} 个。"],
  plain: ["Too long for Markdown: shown as plain text.", "内容过长，以纯文本显示。"],
  image_blocked: ["picture at {url}, not loaded", "图片 {url}，未加载"],
  link_blocked: ["link removed", "链接已移除"],
  line_of: ["Line {n}", "第 {n} 行"],
  gone: ["This line is no longer there.", "该行已不存在。"],
  error_code: ["Error {code}", "错误 {code}"],
  stage_attachment: ["Attachment cannot be read", "附件无法读取"],
  stage_reply: ["Answer with an error", "回答带有错误"],
  stage_chat: ["No answer from the service", "服务没有回答"],
  stage_upload: ["Upload failed", "上传失败"],
  stage_download: ["Download failed", "下载失败"],
  stage_input: ["The line cannot be asked", "该行无法提问"],
  stage_token: ["No token", "没有令牌"],
  service_error: ["Service error {code}", "服务错误 {code}"],
  unreadable: ["Not a JSON object", "不是 JSON 对象"],
  progress: ["Progress", "进度"],
  progress_of: ["{done} of {total} lines done", "{total} 行中已完成 {done} 行"],
  again: ["To run the {n} that are not done, and only these:", "只重新运行未完成的 {n}："],
  again_input: ["Put the name of your input in place of INPUT.jsonl.", "请把 INPUT.jsonl 换成输入文件的名称。"],
  again_flags: ["Add the flags of the first run, such as -m or -q.", "首次运行时用过的选项（如 -m、-q）请一并加上。"],
  calls: ["Calls", "调用"],
  calls_answered: ["{n} answered · {others} retries and failures", "{n} 次有回答 · {others} 次重试或失败"],
  pace: ["Answers per second", "每秒回答"],
  pace_note: ["over the whole run", "全程平均"],
  pace_now: ["over the last minute", "最近一分钟"],
  median: ["Median latency", "延迟中位数"],
  percentiles: ["90% within {p90}, 99% within {p99}", "90% 在 {p90}内，99% 在 {p99}内"],
  duration: ["Duration", "用时"],
  time_left: ["Time left", "剩余时间"],
  about: ["about {time}", "约 {time}"],
  latency: ["Latency of a call", "单次调用延迟"],
  causes: ["Failures by cause", "失败原因"],
  no_failures: ["Nothing failed.", "没有失败。"],
  no_timings: ["This output carries no timings. Outputs written by gpt4batch hold them in each line's meta; those of the original tool do not.", "此输出没有计时信息。gpt4batch 写出的每行 meta 中带有计时，原工具的输出没有。"],
  kind: ["Kind", "类别"],
  lines_count: ["Lines", "行数"],
  show: ["Show", "查看"],
  example: ["Example", "示例"],
  running: ["Running: last written {ago} ago", "运行中：{ago}前写入"],
  halted: ["Not finished: nothing written for {ago}. Resume with -f if the run was interrupted.", "未结束：已有{ago}未写入。若运行被中断，可用 -f 续跑。"],
  finished: ["Finished {when}", "完成于 {when}"],
  stopped: ["Stopped {when}. {n} not finished.", "{when} 已停止，还有 {n}未完成。"],
  written: ["Last written {when}", "最后写入 {when}"],
  indexing: ["Reading the file: {percent}", "正在读取文件：{percent}"],
  ended: ["viewsvc was stopped. This is the last known state; start it again to go on.", "viewsvc 已停止。显示的是最后已知的状态，重新启动后可继续。"],
  log_order: ["The run is on: lines stand in the order of their answers until it ends.", "运行中：结束前按回答的先后排列。"],
  picture_ask: ["attached", "附件"],
  picture_answer: ["downloaded", "下载"],
  no_pictures: ["No pictures in this output.", "此输出中没有图片。"],
  picture_range: ["{from}–{to} of {total} pictures", "第 {from}–{to} 张，共 {total} 张"],
  open_line: ["Open its line", "打开所在行"],
  left_run: ["Left", "左侧"],
  right_run: ["Right", "右侧"],
  kind_all: ["All pairs", "全部"],
  kind_same: ["Same answer", "回答相同"],
  kind_differ: ["Different answer", "回答不同"],
  kind_better: ["Done only right", "仅右侧完成"],
  kind_worse: ["Done only left", "仅左侧完成"],
  kind_left: ["Only left", "仅左侧有"],
  kind_right: ["Only right", "仅右侧有"],
  pairing: ["Matching lines: {percent}", "正在匹配：{percent}"],
  compare_needs_two: ["Start viewsvc with two outputs of one input to compare them: gpt4batch viewsvc a.jsonl b.jsonl", "以同一输入的两个输出启动 viewsvc 即可对比：gpt4batch viewsvc a.jsonl b.jsonl"],
  choose_pair: ["Choose a pair to read both conversations.", "选择一对以查看两个对话。"],
  no_pairs: ["No such pair.", "没有这样的配对。"],
  marks: ["Mark changes", "标出差异"],
  too_different: ["The two answers are too long or too different to be marked word by word. Switch the marks off to read them.", "两个回答过长或差别过大，无法逐词标出。关闭标记即可阅读。"],
  absent: ["Not in this output.", "此输出中没有。"],
  report_made: ["Report of {when}.", "报告生成于 {when}。"],
  report_whole: ["It holds every line.", "包含全部行。"],
  report_part: ["It holds {shown} of {total} lines: {failed} of {all_failed} failed ones first, then a sample.", "包含 {total} 行中的 {shown} 行：先列失败的（{failed}/{all_failed}），再列样本。"],
  report_pictures: ["{shown} of {total} pictures are inside.", "含 {total} 张图片中的 {shown} 张。"],
  report_cut: ["{n} long texts were cut.", "{n} 段长文本被截断。"],
  report_raw: ["Raw JSON and the rest are in the output itself.", "原始 JSON 及其余内容见输出文件。"],
  left_out: ["left out of the report", "未收入报告"],
  keys_title: ["Keys", "按键"],
  key_views: ["overview, lines, pictures, compare", "概览、行、图片、对比"],
  key_move: ["next and previous line", "下一行、上一行"],
  key_page: ["a page, the ends", "翻页、首尾"],
  key_open: ["open the line", "打开该行"],
  key_pictures: ["pictures: the page or picture before and after", "图片：上一页、下一页，或上一张、下一张"],
  key_close: ["close, back to the list", "关闭，返回列表"],
  table: ["Table", "表格"],
  columns: ["Columns", "列"],
  sort_by: ["Sort by {name}", "按{name}排序"],
  column_id: ["Id", "编号"],
  column_ask: ["Ask", "提问"],
  column_answer: ["Answer", "回答"],
  column_seconds: ["Seconds", "耗时"],
  column_attempts: ["Calls", "调用"],
  column_length: ["Length", "长度"],
  column_tokens: ["Tokens", "token"],
  column_finish: ["End", "结束原因"],
  tick: ["Tick the line to run it again", "勾选该行以便重新运行"],
  ticked: ["Ticked", "已勾选"],
  ticked_lines: ["{n} ticked. To run them again:", "已勾选 {n}。重新运行："],
  untick: ["Untick all", "全部取消"],
  key_tick: ["tick the line (or Ctrl and click)", "勾选该行（或按住 Ctrl 点击）"],
  previous_hit: ["Previous place found", "上一处匹配"],
  next_hit: ["Next place found", "下一处匹配"],
  hits: ["{n} of {of}", "第 {n}/{of} 处"],
  key_hits: ["next and previous place found", "下一处、上一处匹配"],
  key_search: ["search", "搜索"],
  key_states: ["all, done, failed, not run, partly answered", "全部、已完成、失败、未运行、部分已回答"],
  key_raw: ["raw JSON or conversation", "原始 JSON 或对话"],
  key_marks: ["compare: mark what changed", "对比：标出差异"],
  key_theme: ["light or dark", "浅色或深色"],
  key_language: ["English or Chinese", "中文或英文"],
  key_help: ["these keys", "本帮助"],
  failures: ["Failures", "失败"],
  of_all: ["{percent} of the lines", "占全部行的 {percent}"],
  loading: ["Loading", "载入中"],
  calls_axis: ["calls", "次"],
  outputs: ["Outputs", "输出文件"],
  save: ["Save", "保存"],
  skip: ["Skip to the content", "跳到内容"],
};

const LANGUAGE_KEY = "gpt4batch.language";
let chosenLanguage = null;

export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A page opened from a file may have no storage: the choice then lasts as long as the page.
  }
}

export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function language() {
  if (chosenLanguage === null) {
    const wish = recall(LANGUAGE_KEY) || navigator.language || "en";
    chosenLanguage = wish.toLowerCase().startsWith("zh") ? "zh" : "en";
  }
  return chosenLanguage;
}

export function switchLanguage() {
  chosenLanguage = language() === "zh" ? "en" : "zh";
  remember(LANGUAGE_KEY, chosenLanguage);
}

export function say(key, values = {}) {
  const pair = WORDS[key];
  if (!pair) throw new Error(`no words for ${key}`);
  return pair[language() === "zh" ? 1 : 0].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export function writeCount(value) {
  return new Intl.NumberFormat(language()).format(value);
}

export function writeLines(value) {
  return say(value === 1 ? "one_line" : "many_lines", { n: writeCount(value) });
}

function percentText(text) {
  return `${text}%`;
}

export function writePercent(share) {
  // 99.97 % done is not 100 %: round towards what is left.
  const percent = Math.floor(share * 1000) / 10;
  return percentText(percent < 100 && percent > 99 ? percent.toFixed(1) : Math.floor(percent));
}

export function writeFailedPercent(count, total) {
  // One failure in a million is not 0 %: round up, to one digit.
  return percentText(Math.ceil((count * 1000) / total) / 10);
}

export function writeSeconds(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const zh = language() === "zh";
  if (seconds < 0.995) return `${Math.max(1, Math.round(seconds * 1000))} ${zh ? "毫秒" : "ms"}`;
  if (seconds < 10) return `${seconds.toFixed(1)} ${zh ? "秒" : "s"}`;
  if (seconds < 100) return `${Math.round(seconds)} ${zh ? "秒" : "s"}`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} ${zh ? "分钟" : "min"}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return zh ? `${hours} 小时 ${minutes % 60} 分` : `${hours} h ${minutes % 60} min`;
  return zh ? `${Math.round(hours / 24)} 天` : `${Math.round(hours / 24)} days`;
}

export function writeMoney(cost) {
  return String(Number(cost.toPrecision(6)));
}

export function writeTokens(tokens) {
  return say("tokens_one", { in: writeCount(tokens.input), out: writeCount(tokens.output) });
}

export function writeRate(rate) {
  return rate >= 100 ? writeCount(Math.round(rate)) : rate >= 10 ? rate.toFixed(1) : rate.toFixed(2);
}

export function writeBytes(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

export function writeMoment(unix, style = { dateStyle: "medium", timeStyle: "short" }) {
  return new Intl.DateTimeFormat(language() === "zh" ? "zh-CN" : "en-GB", style).format(new Date(unix * 1000));
}

export function causeName(cause) {
  return cause.stage === "unreadable" ? say("unreadable") : cause.message || causeKind(cause);
}

// What the original tool writes has no stage: then the message is all there is.
export function causeKind(cause) {
  const stage = cause.stage === cause.message || cause.stage === "unreadable" ? "" : cause.stage;
  return failureName(cause.code, stage);
}

// A code is told where a service gave it: 200 is no failure, and 501 stands for files that cannot be read.
export function failureName(code, stage) {
  if (code >= 300 && ["chat", "upload", "download", "token"].includes(stage)) {
    const place = stage === "chat" ? "" : say(`stage_${stage}`);
    return [place, say("service_error", { code })].filter(Boolean).join(" · ");
  }
  if (`stage_${stage}` in WORDS) return say(`stage_${stage}`);
  return [code ? say("error_code", { code }) : "", stage].filter(Boolean).join(" · ");
}

export function causeTitle(cause) {
  const kind = causeKind(cause);
  return kind === causeName(cause) || !kind ? causeName(cause) : `${shortened(causeName(cause), 60)} · ${kind}`;
}

export function shortened(text, most = 34) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
