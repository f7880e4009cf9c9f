# hqsod serve in a container, on a CPU or, with --target cuda, on an NVIDIA GPU (docs/serving.md).
FROM python:3.11-slim AS base
ENV PATH=/opt/hqsod/bin:$PATH PYTHONUNBUFFERED=1 HQSOD_CACHE=/cache
RUN python -m venv /opt/hqsod && useradd --create-home hqsod && install -d -o hqsod /cache
COPY . /src
VOLUME /cache
EXPOSE 8000
# The token is asked for here too: without HQSOD_TOKEN it is a new one each time, which nobody knows.
HEALTHCHECK --start-period=60s CMD python -c "import os, urllib.request as web; \
  web.urlopen(web.Request('http://127.0.0.1:8000/health', \
  headers={'Authorization': 'Bearer ' + os.environ['HQSOD_TOKEN']}))"
ENTRYPOINT ["hqsod"]
CMD ["serve", "--host", "0.0.0.0"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[serve,torch]'
USER hqsod

FROM base AS cpu
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[serve]'
USER hqsod
