"""The online tuner: learns from live traffic which PodConfig each kind of batch wants.

Reading order: settings, model (what is passed around), storage, ingest (traces in), space, study
and campaign (one bucket's search), promote (when is better better), publish (tables out), core
(all of it in one object), worker and bench (who measures), api and service (who hosts it).
"""
