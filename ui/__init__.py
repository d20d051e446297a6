"""The page: drop an image, see its labels, how sure the model is, and where in the image the evidence is.

It speaks HTTP to the service, through visionserve.client, and imports nothing else of the project:

    page        layout and state                 settings        addresses and API key
    ├─ predictions  images -> answers            card            the model's card
    ├─ result       one image's answer           html            numbers -> HTML and SVG
    ├─ about        the model, the API           overlay         image + heatmap -> image
    └─ feedback     people's corrections         interpretation  numbers -> sentences
"""
