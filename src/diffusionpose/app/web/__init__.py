"""The web page: find poses in a browser, and see how they come about."""
