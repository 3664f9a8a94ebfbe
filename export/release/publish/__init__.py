"""Publish a release: to a folder, an object store, the Hugging Face hub or GitHub Releases.

Every destination first says what it would do (`PublishPlan`), then does it: uploads what differs,
reads it back, and only then makes it visible. A run that was interrupted is gone on with by the
next.
"""
