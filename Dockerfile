# Anaphora in a container, run by an unprivileged user:
#
#   docker build --tag anaphora .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" anaphora train book.txt --out book-model
#   docker run --rm --volume "$PWD:/data:ro" --publish 8000:8000 anaphora serve book-model --host 0.0.0.0
#
# It needs BuildKit, which Docker uses by default since version 23.
#
# --build-arg EXTRAS=serve,plot,bpe chooses what else is installed; see the extras in pyproject.toml.

FROM python:3.13-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.13-slim
ARG EXTRAS=serve
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/anaphora-*.whl)[$EXTRAS]" \
    && python -W error -c "import anaphora.engine as e; assert e.info()['engine'] == 'native'" \
    && useradd --uid 10001 --create-home anaphora \
    && install --directory --owner anaphora /data
USER anaphora
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["anaphora"]
CMD ["--help"]
