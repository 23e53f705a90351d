/* The one thing of JUnit 4 that the tests use, for the runner beside it. */
package org.junit

@Target(AnnotationTarget.FUNCTION)
annotation class Test
