"""The control panel in a real Chromium: what only a browser can show. See conftest.py and site.py."""
