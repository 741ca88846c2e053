"""The web pages: made on the server from the documents that `/v1` answers with, readable without scripts."""

from api.pages import gates, jobs, kinds, operations, sign_in, static

ROUTERS = [module.router for module in (sign_in, jobs, kinds, gates, operations, static)]
