"""Online evaluation: post labelled images to the running service and compare its accuracy with the model card's."""
