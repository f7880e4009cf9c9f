"""The job: saliency maps and cut-outs over HTTP."""
