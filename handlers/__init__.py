"""handlers: the edges to servers. Archives carry image_handler.py at their top, the rest as this package."""
