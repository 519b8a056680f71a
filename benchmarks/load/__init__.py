"""The app under many visitors at once: visitors, and what is measured of them."""
