"""A person's own pictures: `fixres train PHOTOS` beside what else could be typed. README.md has the commands."""
