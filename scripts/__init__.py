"""Programs that make parts of the documents: pictures, numbers, drawn examples."""
