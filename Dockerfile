# The image of weir-controller: one static program, run by nobody in particular.
# make image builds the program and then this. BASE may be a distroless static image,
# for its certificates and time zones; the program needs neither.
ARG BASE=scratch
FROM ${BASE}
COPY weir-controller /weir-controller
USER 65532:65532
ENTRYPOINT ["/weir-controller"]
