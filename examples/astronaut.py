"""Write the public-domain portrait of the astronaut Eileen Collins (NASA), which scikit-image ships, to a file."""

import sys

from PIL import Image
from skimage import data

Image.fromarray(data.astronaut()).save(sys.argv[1])
