"""The Segmentation page's parts."""
