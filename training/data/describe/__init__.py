"""What is in a folder of photographs, before any training: a report with figures, plots and samples."""
