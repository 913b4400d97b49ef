"""requests - what is committed -> units: resolution, request keys, batch keys, cost. Pure: values in, values out."""
