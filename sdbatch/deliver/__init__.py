"""Makes the files that people asked for from the masters of a campaign, without a GPU and without a render.

settings.py   a delivery's YAML --> Delivery
matching.py   masters + formats --> which master feeds which file
names.py      a template over columns --> names that any file system and any bucket takes
placing.py    sizes + fit + focus --> what is cropped, how far it is enlarged
stills.py     a picture --> exact pixels, a file under its byte cap
clips.py      a clip --> the same, through ffmpeg
making.py     one master --> all of its files
index.py      delivered.parquet: what lies at a target, and what it was made of
targets.py    a folder, a bucket, or zip archives
ledger.py     deliveries/*.jsonl: what each invocation made
"""
