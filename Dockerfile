# The images of a lab. `api` serves and migrates and has no numerical library; `worker` computes.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    HOME=/var/lib/husai \
    HUSAI_HOME=/var/lib/husai \
    HUSAI_ARTIFACT_URL=/srv/artifacts
# A new volume takes its owner from the folder that it covers, so each place where one may be mounted exists here.
RUN groupadd --gid 65532 husai \
    && useradd --no-log-init --uid 65532 --gid husai --home-dir /var/lib/husai --no-create-home --shell /usr/sbin/nologin husai \
    && install --directory --owner husai --group husai --mode 0700 /var/lib/husai /srv/artifacts \
    && install --directory --owner husai --group husai \
        /run/husai/postgres /run/husai/redis /run/husai/api /run/husai/signing
WORKDIR /app
STOPSIGNAL SIGTERM

# Only what decides the dependencies, so that changed code installs nothing again. With no package beside it,
# `pip install .` brings the dependencies and the command; the metadata names the two files that are touched.
FROM base AS pins
COPY pyproject.toml requirements.lock ./
COPY deploy/*.lock deploy/
RUN touch README.md LICENSE

# Readable by every user, whatever the checkout's umask was, and compiled, since nothing can be written later.
FROM base AS code
COPY LICENSE pyproject.toml requirements.lock ./
COPY deploy/make_secrets.py deploy/
COPY husai_core husai_core
COPY services services
COPY migrations migrations
COPY worker worker
COPY husai husai
COPY api api
RUN chmod -R a+rX . && python -m compileall -q --invalidation-mode unchecked-hash .

FROM pins AS api
RUN python -m pip install --no-deps --require-hashes --requirement deploy/api.lock \
    && python -m pip install --no-deps . && rm -rf build ./*.egg-info
COPY --from=code /app /app
USER 65532:65532
EXPOSE 8765
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8765"]

FROM pins AS worker
# Kernels are compiled at their first use, for the machine's own processor or GPU, and kept in HOME.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# A further index with builds of torch for one kind of device; the pin `X` also takes `X+build`, so it has no hash.
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m pip install --constraint requirements.lock torch \
    && python -m pip install --no-deps --require-hashes --requirement deploy/worker.lock \
    && python -m pip install --no-deps . && rm -rf build ./*.egg-info
COPY --from=code /app /app
USER 65532:65532
CMD ["python", "-m", "worker"]
