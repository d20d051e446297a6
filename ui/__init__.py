"""The page: drop a photograph, see what it is, how sure the model is, and where it looked.

It speaks HTTP to the service, through visionserve.client, and knows nothing else of the project:

    page       what is where                      settings   where the service is
    ├─ asking     photographs -> answers          card       the model's card, described
    ├─ result     one photograph's answer         drawing    numbers -> HTML and SVG
    ├─ about      the model, the API              pictures   photograph + heatmap -> picture
    └─ feedback   what people say of the answers  colours    the heatmap's colour scale
"""
