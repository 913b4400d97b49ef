"""bytes -> store: assets, then one conditional write per unit; and reading the campaign back."""
