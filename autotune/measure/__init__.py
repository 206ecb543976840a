"""How a trial measures: warm-up, blocks, the loader, and the rates that follow from them; no torch."""
