"""Which rows are meant: the one expression language of briefs, `--where` and deliveries.

    "scene.season == product.season and locale in ('de-DE', 'fr-FR')", kinds of the columns
        --> compile_where() --> Where --> holds(row) --> bool

A row is plain values by name: `x_locale`, or `product.season` where an axis has columns. Null equals only null, an
order with null does not hold, and what is of unlike kinds is refused before any row is looked at.
"""

from __future__ import annotations

from sdbatch.where.expression import Where, WhereRefused, compile_conjuncts, compile_where
from sdbatch.where.kinds import MANIFEST_KINDS, Kind, kind_of

__all__ = ["MANIFEST_KINDS", "Kind", "Where", "WhereRefused", "compile_conjuncts", "compile_where", "kind_of"]
