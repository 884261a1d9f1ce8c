# The dropserve server in a container: `make image`, docs/image.md.
#
# VARIANT      cpu or cuda: which ONNX Runtime is inside. Which torch is inside follows from where pip looks;
#              torch brings the CUDA libraries that both use, so the cuda image needs no CUDA base image.
# BASE_IMAGE   anything with Python 3.11 or newer and its venv module; it is both stages' base, because a
#              virtual environment works only beside the interpreter that made it.
# PIP_*        pip's own settings, for a registry of your own. With PIP_NO_INDEX=1 everything comes from the
#              build context `wheels`, a folder: sites without a network need nothing else.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM scratch AS wheels

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proto proto
COPY models models
COPY server server
COPY client client
# onnxruntime-gpu is what the server extra asks for on x86-64; a host without a GPU wants the package that is a
# tenth of its size. They unpack into the same folder, so it must be one or the other, in the metadata as well.
# torch's wheel brings its C++ tests and headers, which no server needs.
RUN --mount=type=bind,from=wheels,target=/wheels \
    set -eu; \
    case "$VARIANT" in \
        cpu) sed -i -e '/"onnxruntime-gpu/d' -e 's/"\(onnxruntime>=[^;]*\);.*"/"\1"/' pyproject.toml ;; \
        cuda) ;; \
        *) echo "VARIANT is '$VARIANT'; it must be cpu or cuda" >&2; exit 1 ;; \
    esac; \
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_FIND_LINKS=/wheels; \
    python3 -m venv tools; \
    tools/bin/pip install --constraint constraints.txt hatchling; \
    tools/bin/hatchling build -t wheel -d dist; \
    python3 -m venv --without-pip /opt/dropserve; \
    tools/bin/pip --python /opt/dropserve/bin/python install --constraint constraints.txt "$(echo dist/*.whl)[server,otel]"; \
    rm -rf /opt/dropserve/lib/python3*/site-packages/torch/test /opt/dropserve/lib/python3*/site-packages/torch/include

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="dropserve" \
      org.opencontainers.image.description="A model server whose predictions come with error bars" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/dropserve /opt/dropserve
# Metrics are scraped from other machines here. The last two let the NVIDIA container runtime hand a GPU in; without that runtime they mean nothing.
ENV PATH=/opt/dropserve/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DROPSERVE_METRICS_HOST=0.0.0.0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-m", "dropserve_server.healthcheck"]
ENTRYPOINT ["dropserve"]
CMD ["serve", "--repository", "/repository"]
