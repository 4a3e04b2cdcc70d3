# One GPU or several, of any machine with NVIDIA's container toolkit:
#   docker build -t diffprobe . && docker run --rm --gpus all -v "$PWD/work:/work" diffprobe train debug=default
# PyTorch's wheels from PyPI bring CUDA, so the image needs none. Versions are those of constraints.txt.
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff constraints.txt train.py analyze.py ./
COPY conf conf
COPY src src
RUN python -m venv /opt/diffprobe \
    && /opt/diffprobe/bin/pip install --no-cache-dir '.[saliency,sweep,hpo]' -c constraints.txt

FROM python:3.11-slim-bookworm
COPY --from=build /opt/diffprobe /opt/diffprobe
ENV PATH="/opt/diffprobe/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/work/.huggingface
RUN useradd --create-home --uid 1000 probe && install --directory --owner=1000 /work
USER 1000
WORKDIR /work
ENTRYPOINT ["diffprobe"]
CMD ["--help"]
