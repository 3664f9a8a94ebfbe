"""Plans: which models are exported to which variants, and what is required of them."""

from export.plan.plan import ModelRequest, Plan, VariantRequest, load_plan

__all__ = ["ModelRequest", "Plan", "VariantRequest", "load_plan"]
