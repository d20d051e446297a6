"""visionserve.cli: the `visionserve` command. Asks a running service, or a bundle in this process.

__main__      the commands and their exit codes
photographs   PHOTO, FOLDER or - -> files, streamed
asking        files -> outcomes, from a service     <- visionserve.client
local         files -> outcomes, on all cores       <- visionserve.batch
records       outcomes -> rows; ledger and parquet put them where a next run goes on
predict, explain, models            one command each
"""
