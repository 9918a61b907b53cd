"""The verbs beyond run and tables: claims, figures, page, audit, diagnosis, cross-checks, comparison."""

from __future__ import annotations
