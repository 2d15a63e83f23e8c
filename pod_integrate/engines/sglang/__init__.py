"""SGLang plug-in: attention backend `pod`, CPU platform `pod_cpu`, trace hook."""
