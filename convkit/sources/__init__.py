"""Where data comes from: a path, an archive, a file on a hub, data inside an installed package.

An address without a path is written `hub:OWNER/NAME/FILE` (a file of a data set on the Hugging Face hub) or
`package:MODULE/FOLDER` (a folder inside an installed package).
"""
