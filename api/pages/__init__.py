"""The web pages: made on the server from the documents that `/v1` answers with, readable without scripts."""

from fastapi import APIRouter

from api.pages import gates, jobs, kinds, operations, sign_in, static

router = APIRouter(include_in_schema=False)
for module in (sign_in, jobs, kinds, gates, operations, static):
    router.include_router(module.router)
