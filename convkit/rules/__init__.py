"""The validation rules, one module per family; `registry` lists them all."""
