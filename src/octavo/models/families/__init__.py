"""One file a family; :mod:`octavo.models.registry` finds them."""
