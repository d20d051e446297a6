"""Signatures: which format a file has, by its first bytes alone; those that are not read are named in the refusal."""

import re

from PIL import TiffImagePlugin, WebPImagePlugin

from visionserve.errors import UnsupportedImage
from visionserve.formats import heif

# Two named through their plugins: without the imports the first of them would send Pillow through all its plugins.
_READ = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    WebPImagePlugin.WebPImageFile.format: re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    TiffImagePlugin.TiffImageFile.format: re.compile(rb"II[*+]\0|MM\0[*+]"),
}
# Named in the answer, for nobody knows from its suffix why a picture is refused.
_NOT_READ = {
    "JPEG XL": re.compile(rb"\xff\n|\0\0\0\x0cJXL "),
    "JPEG 2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP"),
    "SVG": re.compile(rb"(?s)\s*(<\?xml.{0,200}?)?<svg"),
    "PDF": re.compile(rb"%PDF"),
    "video": re.compile(rb"(?s)....ftyp(isom|iso[2-6]|mp4|qt  |M4V|3gp)"),
    "camera raw": re.compile(rb"(?s)....ftypcrx |FUJIFILMCCD-RAW|IIRO|IIU\0"),
    "PSD": re.compile(rb"8BPS"),
    "ICO": re.compile(rb"\0\0[\1\2]\0"),
    "text in base64, which belongs into JSON or a data URL": re.compile(
        rb"/9j/|iVBORw0KGgo|R0lGOD|UklGR|AAAA.{4,8}Z0eX"
    ),
}
_SEND = "send JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or TIFF."


def recognise(file: bytes | bytearray) -> str:
    """Return Pillow's name of the format; UnsupportedImage if it is none of those that are read."""
    for image_format, signature in _READ.items():
        if signature.match(file):
            return image_format
    if container := heif.recognise(file):
        return container
    for name, signature in _NOT_READ.items():
        if signature.match(file):
            raise UnsupportedImage(f"Unsupported image format {name}: {_SEND}")
    raise UnsupportedImage(f"Unsupported image format: {_SEND}")
