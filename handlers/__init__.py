"""handlers: the edges to servers. Archives carry image_handler.py by itself."""
