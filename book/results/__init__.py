"""Recorded runs, one JSON file each: installed as `gptbook.results`, so that chapters find them."""
