"""The demo: a static chat page that runs exports in the reader's browser, offline."""
