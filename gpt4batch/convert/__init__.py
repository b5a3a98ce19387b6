"""Tables and folders of pictures become a batch; an output becomes a table."""
