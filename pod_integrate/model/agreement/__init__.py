"""Does the cost model agree with what others published?"""
