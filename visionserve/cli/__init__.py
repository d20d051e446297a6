"""visionserve.cli: the `visionserve` command. Classifies images by a running service, or by a bundle in this process.

__main__         the commands and their exit codes
image_files      IMAGE, FOLDER or - -> files, streamed
predictors       files -> results, from a service      <- visionserve.client
local            files -> results, on all cores        <- visionserve.batch
resumable_table  results -> rows of CSV or JSON Lines, where the next run goes on; parquet the same for Parquet
predict, explain, models    one command each
"""
