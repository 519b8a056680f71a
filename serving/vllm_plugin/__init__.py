"""micro_step models inside vLLM: a plugin for any program that runs vLLM, and an engine for this project's server.

No module here imports vLLM when it is imported, so all can be read and tested where vLLM is not installed.
"""
