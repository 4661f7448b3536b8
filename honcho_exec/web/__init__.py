"""The embedded Honcho over HTTP, with a page that shows the memory."""
