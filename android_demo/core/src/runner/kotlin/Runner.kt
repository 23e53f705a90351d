/*
 * Runs the tests without JUnit, where there is only a JDK and the Kotlin compiler.
 *
 * Every method marked @Test of the classes named ...Test beside this one runs on a new object, as JUnit 4 would do it.
 * Prints a line for each test; ends with status 1 if one failed. Gradle does not compile this folder.
 */
package io.pocketbert.core

import java.io.File
import java.lang.reflect.InvocationTargetException
import kotlin.system.exitProcess

private fun failure(test: java.lang.reflect.Method): Throwable? = try {
    test.invoke(test.declaringClass.getDeclaredConstructor().newInstance())
    null
} catch (problem: InvocationTargetException) {
    problem.cause
}

fun main() {
    val folder = File(Manifest::class.java.protectionDomain.codeSource.location.toURI())
    val names = folder.walk().map { it.relativeTo(folder).path }.filter { it.endsWith("Test.class") && '$' !in it }
    val classes = names.map { Class.forName(it.removeSuffix(".class").replace(File.separatorChar, '.')) }
    val tests = classes.flatMap { it.methods.asSequence() }.filter { it.isAnnotationPresent(org.junit.Test::class.java) }
    val failures = tests.sortedBy { "${it.declaringClass.name} ${it.name}" }.count { test ->
        val problem = failure(test)
        println("${if (problem == null) "ok  " else "FAIL"} ${test.declaringClass.simpleName}: ${test.name}")
        problem?.printStackTrace(System.out)
        problem != null
    }
    println("${tests.count()} tests, $failures failed")
    exitProcess(if (failures > 0 || tests.none()) 1 else 0)
}
