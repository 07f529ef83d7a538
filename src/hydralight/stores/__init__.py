"""Files in stores at URLs: what there is, read with patience, and kept as copies."""
