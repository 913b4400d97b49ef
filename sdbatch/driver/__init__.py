"""The driver puts the rooms together: one file for each long verb. Only the worker does so too.

    Job --> rows/ --> ResolvedManifest --> one_run/ --> pending requests --> run --> commits, metadata, gallery

`predicted/` is work before it is done, for `forecast` and budgets; `delivery/` is what `deliver` is made of.

Nothing is written before every row was checked. The driver holds no truth: all of it is in the campaign.
"""
