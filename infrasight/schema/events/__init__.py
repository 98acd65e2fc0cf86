"""The event kinds, one declaration a module; `infrasight.schema.kinds` lists them."""
