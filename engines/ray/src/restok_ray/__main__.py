"""`python -m restok_ray`."""

import sys

from restok_ray.main import main

sys.exit(main())
