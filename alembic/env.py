"""What Alembic runs for every command; the safety net is ``vecmigrate.environment``."""

from vecmigrate import environment

environment.run()
